"""A study in other programs: TensorBoard, MLflow, optuna-dashboard. All of them read the ledger, none is read."""
