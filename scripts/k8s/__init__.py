"""The parts of scripts/k8s_check.py: rendering, schemas, and the checks that schemas cannot make."""
