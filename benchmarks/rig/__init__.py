"""What every measurement stands on: processes on cores, peers and their configurations, origins, load generators."""
