;; Calls itself without end. The workflow fails, because its stack is used up; the engine's is not.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "#flawless#module#recurses%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func $deeper (param $depth i32) (result i32)
    (i32.add (i32.const 1) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))
  (func (export "#flawless#workflow#run#main")
    (drop (call $deeper (i32.const 0)))))
