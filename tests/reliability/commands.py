"""The long scripts as the tests run them: small, and with the same relative folders in every home."""

GENERATE = ["avmnist_gen.py", *(f"--{name}_dir=originals/{name}" for name in ("mnist", "fsdd", "esc50"))]
GENERATE += ["--num_workers", 2]
PREPARE = ["datasets.ntu_prepare", "--rgb_dir", "originals", "--vid_dim", 32, "--num_workers", 2]

SEARCH = ["main_searchable_avmnist.py", "--run_dir", "runs/r", "--max_fusions", 2, "--search_iterations", 2]
SEARCH += ["--num_samples", 3, "--epochs", 2]
IMPROVED = [*SEARCH, "--search", "improved"]
SEARCH += ["--epochs_surrogate", 5]
LIVE = [*SEARCH, "--features", "live", "--limit_train", 8, "--limit_dev", 4, "--batchsize", 8]
EXTRACT = ["main_searchable_avmnist.py", "--run_dir", "runs/r", "--max_fusions", 1, "--search_iterations", 1]
EXTRACT += ["--epochs", 1, "--epochs_surrogate", 1]

IMAGE = ["train_image.py", "--run_dir", "runs/r", "--epochs", 5]
AUDIO = ["train_audio.py", "--run_dir", "runs/r", "--epochs", 3, "--limit_train", 64]
FOUND = ["main_found_avmnist.py", "--run_dir", "runs/r", "--epochs", 3, "--inner_representation_size", 8]
FOUND += ["--limit_train", 64, "--no-baselines"]
SKELETON = ["train_skeleton_ntu.py", "--run_dir", "runs/r", "--epochs", 3, "--batchsize", 4, "--num_workers", 2]
SKELETON += ["--num_outputs", 2, "--vid_dim", 32]

PREPARATIONS = {"avmnist_gen": GENERATE, "ntu_prepare": PREPARE}
TRAININGS = {"train_image": IMAGE, "train_audio": AUDIO, "found": FOUND}
RUNS = {"feature extraction": EXTRACT, "search, cached": SEARCH, "search, live": LIVE, **TRAININGS}
COMMANDS = {**PREPARATIONS, **RUNS, "train_skeleton_ntu": SKELETON}

JOURNAL, STATE = "runs/r/journal.jsonl", "runs/r/state.checkpoint"
