"""Who waits for jobs is woken: threads of this process, and other processes of this machine."""
