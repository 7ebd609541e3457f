"""How a session lives and ends: killed, stopped, out of disk, over a limit, beside others."""
