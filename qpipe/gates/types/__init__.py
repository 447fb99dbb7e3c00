"""The gate types of the core, one module each: parameters, what it decides, why parameters are refused."""
