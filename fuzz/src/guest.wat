;; Calls the host as it is told to. Its input is a JSON string of hexadecimal digits, which stand for bytes:
;;   calls u32, then for each: where its command is and how long, where the answer's place and length are wanted, where its
;;   allocator says there is room (five u32, little-endian); then anything, for instance commands.
;; The bytes are at 65536. What the host says does not matter.
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "\"GetInput\"")
  (global $room (mut i32) (i32.const 131072))

  (func (export "wasabi::alloc") (param i32) (result i32) (global.get $room))
  (func (export "#flawless#module#told%_#_%1.0.0"))
  (func (export "#flawless#workflow#init#main") (result i32) (i32.const 1))

  (func $digit (param $byte i32) (result i32)
    (if (result i32) (i32.gt_u (local.get $byte) (i32.const 57))
      (then (i32.sub (local.get $byte) (i32.const 87)))
      (else (i32.sub (local.get $byte) (i32.const 48)))))

  (func (export "#flawless#workflow#run#main")
    (local $in i32) (local $out i32) (local $calls i32) (local $call i32)
    (drop (call $submit (i32.const 0) (i32.const 10) (i32.const 16) (i32.const 20)))
    ;; The answer begins with {"String":"\" and ends with \"".
    (local.set $in (i32.const 131085))
    (local.set $out (i32.const 65536))
    (block $end
      (loop $next
        (br_if $end (i32.eq (i32.load8_u (local.get $in)) (i32.const 92)))
        (br_if $end (i32.ge_u (local.get $out) (i32.const 131072)))
        (i32.store8 (local.get $out)
          (i32.or
            (i32.shl (call $digit (i32.load8_u (local.get $in))) (i32.const 4))
            (call $digit (i32.load8_u offset=1 (local.get $in)))))
        (local.set $in (i32.add (local.get $in) (i32.const 2)))
        (local.set $out (i32.add (local.get $out) (i32.const 1)))
        (br $next)))
    (local.set $calls (i32.load (i32.const 65536)))
    (local.set $call (i32.const 65540))
    (block $done
      (loop $each
        (br_if $done (i32.eqz (local.get $calls)))
        (global.set $room (i32.load offset=16 (local.get $call)))
        (drop (call $submit
          (i32.load (local.get $call)) (i32.load offset=4 (local.get $call))
          (i32.load offset=8 (local.get $call)) (i32.load offset=12 (local.get $call))))
        (local.set $call (i32.add (local.get $call) (i32.const 20)))
        (local.set $calls (i32.sub (local.get $calls) (i32.const 1)))
        (br $each)))))
