"""What the tests share: builders of requests, started gateways, peers with a will of their own."""
