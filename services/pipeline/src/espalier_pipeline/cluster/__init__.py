"""A pipeline on Kubernetes: what `submit -n NAMESPACE` starts, and what runs there.

`submitting` and `looking` run where the user is and need a kubeconfig alone; `driver` runs in the driver's Job and
starts one RayJob per segment; `segment` runs in a RayJob and is the local executor for some stages.
"""
