"""For operators: status, estimates, machine checks and cleaning up, mostly from the output store alone."""
