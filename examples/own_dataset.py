"""Train on your own texts and labels, and measure: clean accuracy, and accuracy under attack."""

from contraverse import SCAL, TextData, TextModel, Trainer, evaluate

texts = ["Where is my parcel?", "It has not come yet.", "I want my money back.", "Please refund me."] * 10
labels = ["delivery", "delivery", "refund", "refund"] * 10

train, test = TextData.from_rows(texts, labels).split(0.25, seed=0)
model = TextModel.from_pretrained("minilm", labels=train.label_names)
method = SCAL(epsilon=0.3, alpha=0.1)
Trainer(model, method, train, output_dir="runs/own", num_train_epochs=3, learning_rate=1e-4).train()
print(evaluate(model, test, epsilons=[0.1, 0.3]))
model.save("runs/own/model")
