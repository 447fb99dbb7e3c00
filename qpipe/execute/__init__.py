"""Jobs in guarded children: one fresh interpreter each, on this machine or another."""
