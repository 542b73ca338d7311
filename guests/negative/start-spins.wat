;; Its start function never ends. Refused at deploy, or the workflow is interrupted like one that spins; the deploy
;; itself ends in any case, and so does a cancel.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "#flawless#module#start-spins%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func (export "#flawless#workflow#run#main"))
  (func $spin (loop $again (br $again)))
  (start $spin))
