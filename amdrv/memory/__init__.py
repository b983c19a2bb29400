"""Device and host memory of one GPU: who has which bytes, and at which GPU address."""
