"""How a worker is, told to load balancers, systemd and `protojobs health`."""
