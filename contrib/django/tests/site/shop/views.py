from django.http import HttpRequest, HttpResponse

from protojobs_django import queue
from shop.jobs import send
from shop.models import Order


def order(request: HttpRequest, number: int) -> HttpResponse:
    Order.objects.create(number=number)
    queue.push(send.bind(number))
    if "fail" in request.GET:
        raise RuntimeError("after the push")
    return HttpResponse(status=201)
