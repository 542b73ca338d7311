;; Its allocator gives a command, whose answer needs the allocator. The workflow fails, or the inner command is
;; refused; the engine's stack is not used up.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\22GetInput\22")
  (func (export "#flawless#module#alloc-submits%_#_%1.0.0"))
  (func $alloc (export "wasabi::alloc") (param i32) (result i32)
    (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func (export "#flawless#workflow#run#main")
    (drop (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))))
