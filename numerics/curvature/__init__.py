"""Hessian, Gauss-Newton matrix and gradient kernel along training, and the influence made from them."""
