"""Wake those who wait for jobs: threads of this process, processes of this machine."""
