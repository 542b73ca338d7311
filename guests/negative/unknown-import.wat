;; Imports something that no engine has. Refused at deploy, with the name of the import.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (import "env" "reboot" (func))
  (memory (export "memory") 2)
  (func (export "#flawless#module#unknown-import%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func (export "#flawless#workflow#run#main")))
