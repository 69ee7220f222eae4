"""Models in blocks: :mod:`~blocks.cells` says where they are cut, :mod:`~blocks.scenes` what each block should look
like. ``split_model.py`` cuts, ``run_datasets.py --scenes`` compresses, ``join_models.py`` joins.
"""
