"""The micro engine scheduler: its message ring, the processes and queues that it keeps, what it maps where."""
