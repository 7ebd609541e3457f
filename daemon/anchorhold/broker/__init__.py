"""The broker: answers the worker's system calls, on the supervisor's own copy of what was asked."""
