"""docs/from-the-original.md misses none of the original implementation's options."""

import re

from documents import ROOT, first_cells

# Of its base_options.py, train_options.py, test_options.py, cycle_gan_model.py and test_model.py.
BASE = """
dataroot name gpu_ids checkpoints_dir model input_nc output_nc ngf ndf netD netG n_layers_D norm
init_type init_gain no_dropout dataset_mode direction serial_batches num_threads batch_size
load_size crop_size max_dataset_size preprocess no_flip display_winsize epoch load_iter verbose
suffix use_wandb wandb_project_name phase
"""
TRAIN = """
display_freq display_ncols display_id display_server display_env display_port update_html_freq
print_freq no_html save_latest_freq save_epoch_freq save_by_iter continue_train epoch_count
n_epochs n_epochs_decay beta1 lr gan_mode pool_size lr_policy lr_decay_iters lambda_A lambda_B
lambda_identity
"""
TEST = "results_dir num_test ntest aspect_ratio eval model_suffix"
PAGE = ROOT / "docs" / "from-the-original.md"
OPTIONS = {f"--{name}" for name in f"{BASE} {TRAIN} {TEST}".split()}


def test_every_option_of_the_original_is_listed():
    named = {one for cell in first_cells(PAGE) for one in re.findall(r"--[\w-]+", cell)}
    assert named >= OPTIONS
