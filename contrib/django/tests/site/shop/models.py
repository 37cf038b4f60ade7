from django.db import models


class Order(models.Model):
    number = models.IntegerField(unique=True)
    is_sent = models.BooleanField(default=False)
    ordered_at = models.DateTimeField(null=True)
