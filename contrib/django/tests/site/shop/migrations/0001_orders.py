from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("number", models.IntegerField(unique=True)),
                ("is_sent", models.BooleanField(default=False)),
                ("ordered_at", models.DateTimeField(null=True)),
            ],
        )
    ]
