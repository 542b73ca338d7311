;; Has the `init` of a workflow and not its `run`. Refused at deploy, with the name of the workflow.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "#flawless#module#no-run%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0)))
