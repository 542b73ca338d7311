;; Commands that are no JSON: nothing at all, a bare word, and the beginning of one. The guest is given -5 each time,
;; and ends well if it is.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\22GetInput\22")
  (func (export "#flawless#module#not-json%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func $expect (param $code i32) (param $got i32)
    (if (i32.ne (local.get $code) (local.get $got)) (then (unreachable))))
  (func (export "#flawless#workflow#run#main")
    (call $expect (i32.const -5) (call $submit (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20)))
    (call $expect (i32.const -5) (call $submit (i32.const 1) (i32.const 8) (i32.const 16) (i32.const 20)))
    (call $expect (i32.const -5) (call $submit (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 20)))))
