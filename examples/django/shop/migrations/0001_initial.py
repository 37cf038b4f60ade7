from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("email", models.CharField(max_length=254)),
                ("is_confirmed", models.BooleanField(default=False)),
            ],
            options={
                "permissions": [
                    ("see_jobs", "Can see the background jobs"),
                    ("operate_jobs", "Can retry, pause and remove background jobs"),
                ],
            },
        ),
    ]
