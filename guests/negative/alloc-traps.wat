;; Its allocator traps. The guest is given -3, and ends well if it is.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\22GetInput\22")
  (func (export "#flawless#module#alloc-traps%_#_%1.0.0"))
  (func (export "wasabi::alloc") (param i32) (result i32) (unreachable))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func $expect (param $code i32) (param $got i32)
    (if (i32.ne (local.get $code) (local.get $got)) (then (unreachable))))
  (func (export "#flawless#workflow#run#main")
    (call $expect (i32.const -3) (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))))
