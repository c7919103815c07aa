"""What scripts/k8s_check.py is made of: rendering, schemas, and the checks that schemas cannot make."""
