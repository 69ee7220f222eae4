"""Batches: many scenes and recipes, compressed one after the other or over the machines of a Ray cluster.

:mod:`~batch.datasets` says which scenes there are and what was published of them, :mod:`~batch.job` runs one scene,
:mod:`~batch.serial` and :mod:`~batch.on_ray` run many, :mod:`~batch.display` shows them on the terminal,
:mod:`~batch.report` writes what came out, and :mod:`~batch.check` looks at the folders before anything is run.
"""
