demo test check build help:; @python3 dev.py $@
.PHONY: demo test check build help
