"""SPP-SCL: image-text sentiment and sarcasm with semi-push-pull supervised contrastive learning.

The data's way is the folder's way: raw, clean, split, features, encoders, batches, methods, training,
evaluation, report.
"""
