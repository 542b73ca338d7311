;; A command of 100,000 nested arrays, which a parser that recurses does not survive. The guest is given -5, and ends
;; well if it is.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  (func (export "#flawless#module#deep-command%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func $expect (param $code i32) (param $got i32)
    (if (i32.ne (local.get $code) (local.get $got)) (then (unreachable))))
  (func (export "#flawless#workflow#run#main")
    (memory.fill (i32.const 4096) (i32.const 91) (i32.const 100000))
    (call $expect (i32.const -5) (call $submit (i32.const 4096) (i32.const 100000) (i32.const 16) (i32.const 20)))))
