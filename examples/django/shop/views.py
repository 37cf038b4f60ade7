"""An order is stored together with the job that confirms it."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from protojobs_django import queue
from shop.jobs import confirm
from shop.models import Order


@csrf_exempt  # for programs such as curl; it takes no notice of who is signed in
@require_POST
def order(request: HttpRequest) -> JsonResponse:
    with transaction.atomic():
        row = Order.objects.create(email=request.GET.get("email", ""))
        job = queue.push(confirm.bind(row.pk))
        if "@" not in row.email:
            transaction.set_rollback(True)  # neither the order nor its job is stored
            return JsonResponse({"error": "no e-mail address"}, status=422)
    return JsonResponse({"order": row.pk, "job": job}, status=202)


def show(_request: HttpRequest, number: int) -> JsonResponse:
    row = get_object_or_404(Order, pk=number)
    return JsonResponse({"order": row.pk, "email": row.email, "is_confirmed": row.is_confirmed})
