;; Wants 4 GiB of memory before it does anything. Refused at deploy, or the workflow fails, with the limit; the
;; engine's memory does not grow.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 65536)
  (func (export "#flawless#module#huge-memory%_#_%1.0.0"))
  (global $top (mut i32) (i32.const 4096))
  (func (export "wasabi::alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 0))
  (func (export "#flawless#workflow#run#main")))
