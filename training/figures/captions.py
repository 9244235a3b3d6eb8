"""What the page says about its pictures."""

__all__ = ["CLUSTERS", "NAMES", "PHOTOS", "SCORES", "TSNE"]

PHOTOS = (
    "Every pixel has the class whose words are nearest, by the official protocol of training/evaluate.py,"
    " with the model's own templates."
)
SCORES = (
    "mIoU is over these few photos, in percent: a help in reading the picture, no measure of the model. "
    "training/evaluate.py scores a whole set."
)
CLUSTERS = (
    "Each mask has the colour of the cluster that the clustering gives it: the teacher's features, the "
    "run's ε, balanced over as many photos as a step of the run takes and its queue, if it has one. Unlike"
    " in a step, photos are whole and not augmented. Where masks overlap the smallest is on top; grey is "
    "under no mask. Under each picture stand the clusters that cover most of it, with their nearest name. "
    "A colour means another cluster in each run."
)
NAMES = (
    "By cosine, out of {count} words: the list {words} and the classes above, in the run's own templates."
    " A run with centre: true compares with clusters centred by their own mean; for it the words are centred "
    "by theirs, and a cosine is a likeness beyond what all have in common. Otherwise both are as the text"
    " tower gives them."
)
TSNE = (
    "t-SNE of the same vectors: neighbours are alike; long distances, axes and orientation mean nothing. "
    "Grey dots are words, diamonds the classes, discs the clusters in the colours from above, larger the "
    "more masks of the batch they have; a ring is a cluster without a mask. The most used clusters carry "
    "number and nearest name, and some words their name, where there is room."
)
