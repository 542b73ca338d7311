# What calls of a script take on an idle machine, told to the bench that runs this: one JSON object per line.

import json
import statistics
import time

CALLS = 100


def tell(what, call):
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    print(json.dumps({"call": what, "ms": statistics.median(took) * 1000}))


# Until services have come up, where there are any.
machine.execute("! command -v systemctl || systemctl is-system-running --wait")
tell("is_up()", machine.is_up)
# To the machine's agent and back.
tell("wait_for_closed_port(9)", lambda: machine.wait_for_closed_port(9))
tell('succeed("true")', lambda: machine.succeed("true"))
