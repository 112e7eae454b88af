"""The suite ``keras``: Keras' layers on our engines beside Keras' own loops on torch, and Keras on JAX."""
