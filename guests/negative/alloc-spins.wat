;; Its allocator never ends, so the engine is inside a command when it has to interrupt. The workflow is interrupted
;; like one that spins.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\22GetInput\22")
  (func (export "#flawless#module#alloc-spins%_#_%1.0.0"))
  (func (export "wasabi::alloc") (param i32) (result i32) (loop $again (br $again)) (unreachable))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func $expect (param $code i32) (param $got i32)
    (if (i32.ne (local.get $code) (local.get $got)) (then (unreachable))))
  (func (export "#flawless#workflow#run#main")
    (drop (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))))
