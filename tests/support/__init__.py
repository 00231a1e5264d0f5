"""What tests share: waiting for things, finding programs, a registry that misbehaves on demand."""
