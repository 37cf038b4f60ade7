"""The health of a worker process, for load balancers, Kubernetes, systemd and `protojobs health`."""
