"""`--workers N`: N edge processes speak to the gateway, one decider decides, and their parent keeps them running.

docs/adr/0021 says why so. `parent` accepts connections and starts what died; `edge` is one edge process, with `remote`
in the place of the route; `decider` is what App listens with instead of a server.
"""
