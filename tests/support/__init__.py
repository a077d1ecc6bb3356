"""What tests share: private servers, a proxy that breaks connections, worker processes, a manual clock."""
