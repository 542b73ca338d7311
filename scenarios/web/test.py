# haproxy serves from whom it can reach, and from both again when both are back.

start_all()
web1.wait_for_unit("nginx")
web2.wait_for_unit("nginx")
proxy.wait_for_unit("haproxy")
proxy.wait_for_open_port(80)


def served():
    """Who answers a row of requests."""
    told = proxy.succeed("for n in 1 2 3 4 5 6; do curl -fsS --max-time 5 http://localhost/; done")
    return set(told.split())


with subtest("both servers are asked"):
    retry(lambda _last: served() == {"web1", "web2"}, timeout=30)

with subtest("a server that is cut off is left out, and no request fails"):
    network.isolate(web1)
    retry(lambda _last: served() == {"web2"}, timeout=30)

with subtest("a service that stops is left out as well"):
    network.heal()
    retry(lambda _last: served() == {"web1", "web2"}, timeout=30)
    web2.stop_job("nginx")
    retry(lambda _last: served() == {"web1"}, timeout=30)

with subtest("a machine that crashes and comes back serves again"):
    web2.crash()
    web2.start()
    web2.wait_for_unit("nginx")
    retry(lambda _last: served() == {"web1", "web2"}, timeout=60)
