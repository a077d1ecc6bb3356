"""The middleware chain: what a middleware is, how the layers wrap each other, and how the configuration names them."""
