"""What the scripts share, room by room.

search      configurations, search (the loop), search_flags, search_run, journal, journaled, predictor
candidates  evaluators, feature_bank, population_training, cuda_graph, resumable, fusion_flags
training    training (the only loop), batches, metrics, schedules, seeds
a network   unimodal, found, found_results, training_record, training_state, baselines, statistics, missing
files       checkpoints, misfit (why one does not fit), export, extract (features of one's own networks)
runs        cli, run_folder, run_files, files, interrupts, progress
report      a package of its own: pages, drawings, comparison of runs, TensorBoard
"""
