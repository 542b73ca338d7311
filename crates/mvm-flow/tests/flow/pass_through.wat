;; Hands whatever it is given to the host: its input is a JSON string of hexadecimal digits, which stand for the bytes of a command.
;; What the host says to it does not matter; it ends well.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 32)
  (data (i32.const 0) "\"GetInput\"")

  ;; All answers are written to one place, beyond which there are thirty pages.
  (func (export "wasabi::alloc") (param i32) (result i32) (i32.const 131072))
  (func (export "#flawless#module#pass-through%_#_%1.0.0"))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 1))

  (func $digit (param $byte i32) (result i32)
    (if (result i32) (i32.gt_u (local.get $byte) (i32.const 57))
      (then (i32.sub (local.get $byte) (i32.const 87)))
      (else (i32.sub (local.get $byte) (i32.const 48)))))

  (func (export "#flawless#workflow#run#main")
    (local $in i32) (local $out i32)
    (drop (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))
    ;; The answer begins with {"String":"\" and ends with \"".
    (local.set $in (i32.const 131085))
    (local.set $out (i32.const 32768))
    (block $end
      (loop $next
        (br_if $end (i32.eq (i32.load8_u (local.get $in)) (i32.const 92)))
        (br_if $end (i32.ge_u (local.get $out) (i32.const 98304)))
        (i32.store8 (local.get $out)
          (i32.or
            (i32.shl (call $digit (i32.load8_u (local.get $in))) (i32.const 4))
            (call $digit (i32.load8_u offset=1 (local.get $in)))))
        (local.set $in (i32.add (local.get $in) (i32.const 2)))
        (local.set $out (i32.add (local.get $out) (i32.const 1)))
        (br $next)))
    (drop (call $submit
      (i32.const 32768) (i32.sub (local.get $out) (i32.const 32768)) (i32.const 16) (i32.const 20)))))
