from django.db import models


class Order(models.Model):
    email = models.CharField(max_length=254)
    is_confirmed = models.BooleanField(default=False)

    class Meta:
        permissions = [
            ("see_jobs", "Can see the background jobs"),
            ("operate_jobs", "Can retry, pause and remove background jobs"),
        ]
