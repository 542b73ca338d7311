;; Logs a line of 100 MB in one command of correct JSON. The workflow fails, with the limit; the journal does not grow
;; by that, and neighbours go on.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1600)
  (data (i32.const 0) "{\22Log\22:{\22Info\22:\22")
  (data (i32.const 100000000) "\22}}")
  (func (export "#flawless#module#huge-command%_#_%1.0.0"))
  (func (export "wasabi::alloc") (param i32) (result i32) (i32.const 100001000))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func (export "#flawless#workflow#run#main")
    (memory.fill (i32.const 16) (i32.const 120) (i32.const 99999984))
    (drop (call $submit (i32.const 0) (i32.const 100000003) (i32.const 100000100) (i32.const 100000104)))))
