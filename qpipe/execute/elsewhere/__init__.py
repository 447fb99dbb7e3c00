"""Work on other machines, by Dask."""
